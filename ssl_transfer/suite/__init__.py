"""One command that says what a student is worth elsewhere: many data sets, teacher and student side by side."""
