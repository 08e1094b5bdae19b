"""How Pheon scales: lookups beside the memory's bound, builds beyond their memory, readers side by side, a model."""
