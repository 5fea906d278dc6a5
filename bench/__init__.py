"""Compares Sluice with two baselines on one exchange, one NATS server and one consumer."""
