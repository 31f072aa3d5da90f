"""The keeper: work that has to be done in time, never on the path of a reading. `python -m bridge keep`

port        what a duty is
duties      every duty of the keeper: partitions, attached (days), quarters (quarter_sql, writers, pace)
schedule    when each is due and whether it lags, without a clock
leader      the session that holds the lock: of several keepers one works
service     the process: lead, run what is due, tell its state
metrics     lag, duration and failures of each duty
"""
