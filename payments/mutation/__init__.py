"""Tests that are themselves tested: the SQL of a model is changed in one small place, and a test must notice."""
