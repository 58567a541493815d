"""Settings of nbgrader for a class that works through these exercises; see nbgrader.md."""

c = get_config()  # noqa: F821

# The class's name, and the folder through which its files pass; learners need these two as well.
c.CourseDirectory.course_id = "attention"
c.Exchange.root = "/usr/local/share/nbgrader/exchange"

# A cell that takes longer (seconds) is stopped. No right answer takes a tenth of that.
c.Execute.timeout = 120

# A check cell that a learner deleted is put back.
c.OverwriteCells.add_missing_cells = True
