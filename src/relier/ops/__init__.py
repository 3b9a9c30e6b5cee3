"""Questions and orders for people: functions that return frozen facts; others print them."""
