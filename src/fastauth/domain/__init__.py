"""The rules, pure: no await, no clock, no randomness, no logging, no configuration loading."""
