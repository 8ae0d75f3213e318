"""What several test files need: gates, programs run in a subprocess, exact comparison."""
