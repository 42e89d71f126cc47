"""Face tracking: association, appearance, identity across shots, selection of people, and reports."""
