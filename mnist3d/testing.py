"""Contract checks that the authors of kernels and backends import into their own tests."""
