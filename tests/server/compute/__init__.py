"""Tests of the self-hosted platform."""
