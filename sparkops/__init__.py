"""sparkops: declarative, agentless provisioning of DGX Spark nodes and the LLM services on them."""

__version__ = "0.1.0"
