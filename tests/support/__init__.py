"""What the tests share: servers, a proxy that cuts connections, workers, journals, waiting."""
