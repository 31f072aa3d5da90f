"""Alarms: rules in the database, judged by the keeper; an alarm is raised once and cleared once.

measures    what a rule can look at
judge_sql   the statements that measure, raise and clear
judge       the keeper's duty
"""
