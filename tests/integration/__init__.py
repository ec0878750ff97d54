"""Tests against the real server as a process; nothing is faked."""
