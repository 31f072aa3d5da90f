"""Alarms: rules in the database, judged by the keeper; an alarm is raised once and cleared once.

measures    what a rule can look at
judge_sql   the statements that measure, raise and clear
judge       the keeper's duty
notification  the document that is delivered, and its signature
outbox      the notifications that are still to be delivered
webhook     sends one to a webhook
mqtt        publishes them to a broker
delivery    runs beside the duties
"""
