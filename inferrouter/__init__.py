"""Route LLM requests over many accounts: free capacity first, never overrun, paid only when allowed."""

__version__ = "0.1.0"
