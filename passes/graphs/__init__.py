"""The words a graph is written in: nodes, the emitter that writes them, facts about them."""
