"""The planner as a page in a browser: `moelab app`. Every state of it is an address, and no visitor sees another's."""
