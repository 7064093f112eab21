"""From prompts to the statistics of hooked layers."""
