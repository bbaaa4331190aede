"""From raw clips to a deployed student as stages that are safe to repeat."""
