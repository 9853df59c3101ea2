"""From operations to legal packets: dependences, the list scheduler, the rules of a program."""
