"""Fixtures that all tests may ask for. On a shared machine no example of a law is judged by its time."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.lab.fixtures"]

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
