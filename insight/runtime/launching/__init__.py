"""The processes of one run: how they meet, agree, notice that one of them hangs, and end together."""
