"""Other people's files of judgements."""
