"""What a run tells: report, trace, verification, and files written whole or not at all."""
