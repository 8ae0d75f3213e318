"""Functions that the tests run in workers, a module by subject: pure Python, cheap to import."""
