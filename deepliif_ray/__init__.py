"""Score whole cohorts of IHC slides with DeepLIIF on Ray, and query the result with SQL."""
