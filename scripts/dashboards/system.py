"""The programs and the database: alarms, throughput, latency, lag, memory, disk."""

from scripts.dashboards.model import Dashboard, Panel, Row, promql, sql

_PARTITIONS = """
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day, pg_total_relation_size(c.oid) AS size
FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
WHERE inhparent IN ('vehicle_telemetry_history'::regclass, 'meter_telemetry_history'::regclass)"""
_SIZE = sql(f"""
SELECT pg_database_size(current_database()) AS "database",
  (SELECT avg(size) FROM (SELECT sum(size) AS size FROM ({_PARTITIONS}) AS p
    WHERE day < current_date AND day >= current_date - 7 GROUP BY day) AS d) AS "a day of readings",
  (SELECT sum(size) FROM ({_PARTITIONS}) AS p WHERE day = current_date) AS "today so far",
  (SELECT count(DISTINCT day) FROM ({_PARTITIONS}) AS p WHERE day > current_date) AS "days with partitions ahead"
""")
_BY_DAY = sql(f"""
SELECT day::timestamp AT TIME ZONE 'UTC' AS "time", sum(size) AS "history" FROM ({_PARTITIONS}) AS p
WHERE day <= current_date AND day >= current_date - 90 GROUP BY 1 ORDER BY 1
""")


def _quantiles(metric: str, by: str, legend: str) -> list[tuple[str, str]]:
    return [
        (f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket[$__rate_interval])))", f"{name} {legend}")
        for q, name in ((0.5, "p50"), (0.99, "p99"))
    ]


DASHBOARD = Dashboard(
    uid="fleet-system",
    title="System",
    description="Bridge, keeper, API and database. The alarms are those of docs/operations.md.",
    rows=[
        Row(
            "State",
            [
                Panel(
                    "stat",
                    "Ready",
                    [
                        promql('(max(fleet_ready{job="fleet-bridge"}) or vector(0))', "bridge", is_now=True),
                        promql('(max(fleet_ready{job="fleet-keeper"}) or vector(0))', "keeper", is_now=True),
                        promql('(max(up{job="fleet-api"}) or vector(0))', "API", is_now=True),
                        promql("(max(fleet_mqtt_connected) or vector(0))", "broker", is_now=True),
                    ],
                    unit="bool_yes_no",
                    width=10,
                    height=5,
                ),
                Panel(
                    "table",
                    "Alarms",
                    [promql('ALERTS{alertstate="firing"}', is_now=True)],
                    width=8,
                    height=5,
                    description="Empty when all is well.",
                ),
                Panel(
                    "table",
                    "Versions",
                    [promql("fleet_build_info", is_now=True)],
                    width=6,
                    height=5,
                ),
            ],
        ),
        Row(
            "Ingest",
            [
                Panel(
                    "timeseries",
                    "Readings by program",
                    [
                        promql(
                            "sum by (job, outcome) (rate(fleet_readings_total[$__rate_interval]))",
                            "{{job}} {{outcome}}",
                        )
                    ],
                    unit="cps",
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Time to commit a batch",
                    [promql(*each) for each in _quantiles("fleet_batch_write_seconds", "job", "{{job}}")],
                    unit="s",
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Readings in a batch, mean",
                    [
                        promql(
                            "sum by (job) (rate(fleet_batch_readings_sum[$__rate_interval])) "
                            "/ sum by (job) (rate(fleet_batch_readings_count[$__rate_interval]))",
                            "{{job}}",
                        )
                    ],
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Broker",
                    [
                        promql("sum(rate(fleet_mqtt_messages_total[$__rate_interval]))", "messages"),
                        promql("sum(rate(fleet_mqtt_acks_total[$__rate_interval]))", "acknowledged"),
                        promql("sum(rate(fleet_mqtt_receipts_total[$__rate_interval]))", "receipts"),
                        promql("sum(rate(fleet_mqtt_reject_notices_total[$__rate_interval]))", "notices of rejects"),
                    ],
                    unit="cps",
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Trouble in the last hour",
                    [
                        promql("sum(increase(fleet_store_unavailable_total[1h]))", "failed writes"),
                        promql("sum(increase(fleet_mqtt_connects_total[1h]))", "connections to the broker"),
                        promql("sum(increase(fleet_mqtt_session_lost_total[1h]))", "lost sessions"),
                        promql("sum(increase(fleet_mqtt_stale_acks_total[1h]))", "acknowledgements that came too late"),
                        promql("sum(increase(fleet_mqtt_taken_over_total[1h]))", "sessions taken over"),
                        promql("sum(increase(fleet_mqtt_connect_alarms_total[1h]))", "minutes of many connections"),
                        promql("sum(increase(fleet_reject_alarms_total[1h]))", "minutes of many rejects"),
                    ],
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Messages that the broker dropped, by its own count",
                    [promql("max(fleet_broker_dropped_messages)", "dropped")],
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "The broker's subscriptions, and messages that may expire or are discarded",
                    [
                        promql("max(fleet_broker_subscriptions)", "subscriptions"),
                        promql("max(fleet_broker_shared_subscriptions)", "shared"),
                        promql("sum(increase(fleet_mqtt_expiring_messages_total[$__rate_interval]))", "may expire"),
                        promql("sum(increase(fleet_mqtt_mistaken_messages_total[$__rate_interval]))", "wrong topic"),
                        promql("sum(increase(fleet_mqtt_discarded_messages_total[$__rate_interval]))", "discarded"),
                    ],
                    width=8,
                ),
            ],
        ),
        Row(
            "JetStream",
            [
                Panel(
                    "timeseries",
                    "JetStream: messages",
                    [
                        promql("sum(rate(fleet_jetstream_messages_total[$__rate_interval]))", "received"),
                        promql("sum(rate(fleet_jetstream_acks_total[$__rate_interval]))", "acknowledged"),
                        promql("sum(rate(fleet_jetstream_receipts_total[$__rate_interval]))", "receipts"),
                    ],
                    unit="cps",
                    width=12,
                ),
                Panel(
                    "timeseries",
                    "JetStream: partitions, and trouble in the last hour",
                    [
                        promql("fleet_jetstream_connected", "partitions of {{instance}}"),
                        promql("sum(increase(fleet_jetstream_connects_total[1h]))", "connections"),
                        promql(
                            "sum(increase(fleet_jetstream_stale_acks_total[1h]))", "acknowledgements that came too late"
                        ),
                        promql("sum(increase(fleet_jetstream_out_of_order_total[1h]))", "messages out of order"),
                        promql("sum(increase(fleet_jetstream_consumer_created_total[1h]))", "missing consumers"),
                    ],
                    width=12,
                ),
            ],
        ),
        Row(
            "Kafka",
            [
                Panel(
                    "timeseries",
                    "Kafka: records not in the database yet",
                    [
                        promql("fleet_kafka_lag_records", "{{instance}}"),
                        promql("sum(increase(fleet_kafka_lost_records_total[1h]))", "deleted unread in the last hour"),
                    ],
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Kafka: records",
                    [
                        promql("sum(rate(fleet_kafka_messages_total[$__rate_interval]))", "received"),
                        promql("sum(rate(fleet_kafka_acks_total[$__rate_interval]))", "settled"),
                        promql(
                            "sum(rate(fleet_kafka_stale_acks_total[$__rate_interval]))", "settled after a revocation"
                        ),
                        promql("sum(rate(fleet_kafka_receipts_total[$__rate_interval]))", "receipts"),
                    ],
                    unit="cps",
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Kafka: the group",
                    [
                        promql("fleet_kafka_partitions", "partitions of {{instance}}"),
                        promql("fleet_kafka_connected", "{{instance}} is connected"),
                        promql("sum(increase(fleet_kafka_rebalances_total[1h]))", "rebalances in the last hour"),
                        promql("sum(increase(fleet_kafka_connects_total[1h]))", "joins in the last hour"),
                        promql(
                            "sum(increase(fleet_kafka_commits_failed_total[1h]))", "refused commits in the last hour"
                        ),
                    ],
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Relay: messages that the stream has, and those that wait for it",
                    [
                        promql("sum(rate(fleet_relay_acks_total[$__rate_interval]))", "acknowledged a second"),
                        promql("sum(fleet_relay_waiting)", "waiting"),
                    ],
                    width=24,
                ),
            ],
        ),
        Row(
            "API",
            [
                Panel(
                    "timeseries",
                    "Responses by status",
                    [promql("sum by (status) (rate(fleet_http_answers_total[$__rate_interval]))", "{{status}}")],
                    unit="reqps",
                ),
                Panel(
                    "timeseries",
                    "Time of requests by route",
                    [promql(*each) for each in _quantiles("fleet_http_request_seconds", "route", "{{route}}")],
                    unit="s",
                ),
                Panel(
                    "timeseries",
                    "Live streams: open, ended, and closed because the client read too slowly",
                    [
                        promql("sum(fleet_stream_viewers)", "open"),
                        promql("sum(increase(fleet_stream_seconds_count[$__rate_interval]))", "ended"),
                        promql("sum(increase(fleet_stream_dropped_total[$__rate_interval]))", "closed"),
                    ],
                ),
                Panel(
                    "timeseries",
                    "Answers a second from replicas, and from the primary instead by reason",
                    [
                        promql("sum(rate(fleet_replica_answers_total[$__rate_interval]))", "replicas"),
                        promql(
                            "sum by (reason) (rate(fleet_replica_fallbacks_total[$__rate_interval]))",
                            "primary: {{reason}}",
                        ),
                    ],
                    unit="reqps",
                ),
                Panel(
                    "timeseries",
                    "Lag of replicas, and whether they may answer (1)",
                    [
                        promql("max by (replica) (fleet_replica_lag_seconds)", "{{replica}} lag, s"),
                        promql("min by (replica) (fleet_replica_usable)", "{{replica}} may answer"),
                    ],
                ),
                Panel(
                    "timeseries",
                    "Clocks of bridges and APIs, ahead of the database's",
                    [promql("fleet_clock_ahead_seconds", "{{job}} {{instance}}")],
                    unit="s",
                ),
            ],
        ),
        Row(
            "Keeper",
            [
                Panel(
                    "timeseries",
                    "Lag of quarter hours and duties",
                    [
                        promql("max by (kind) (fleet_keeper_quarters_behind_seconds)", "quarter hours, {{kind}}"),
                        promql("max by (duty) (fleet_keeper_duty_lag_seconds)", "duty {{duty}}"),
                    ],
                    unit="s",
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Quarter hours to summarize again",
                    [promql("max by (kind) (fleet_keeper_dirty_quarters)", "{{kind}}")],
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Share of time in duties, and failures",
                    [
                        promql("sum by (duty) (rate(fleet_keeper_duty_seconds_sum[$__rate_interval]))", "{{duty}}"),
                        promql(
                            "sum by (duty) (rate(fleet_keeper_duty_failures_total[$__rate_interval]))",
                            "{{duty}} failures a second",
                        ),
                    ],
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Notifications of alarms to be delivered, and their lag",
                    [
                        promql("sum by (target) (fleet_keeper_alarm_deliveries_pending)", "{{target}} pending"),
                        promql("max by (target) (fleet_keeper_alarm_delivery_lag_seconds)", "{{target}} lag, s"),
                    ],
                    width=12,
                ),
                Panel(
                    "timeseries",
                    "Deliveries of alarms a second",
                    [
                        promql(
                            "sum by (target, result) (rate(fleet_keeper_alarm_deliveries_total[$__rate_interval]))",
                            "{{target}} {{result}}",
                        )
                    ],
                    width=12,
                ),
            ],
        ),
        Row(
            "Resources",
            [
                Panel(
                    "timeseries",
                    "CPU, cores",
                    [
                        promql(
                            'sum by (job) (rate(process_cpu_seconds_total{job=~"fleet-.+"}[$__rate_interval]))',
                            "{{job}}",
                        )
                    ],
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Memory",
                    [promql('sum by (job) (process_resident_memory_bytes{job=~"fleet-.+"})', "{{job}}")],
                    unit="bytes",
                    width=8,
                ),
                Panel(
                    "timeseries",
                    "Free disk",
                    [
                        promql(
                            """min by (instance, mountpoint) (node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs"}
                            / node_filesystem_size_bytes{fstype!~"tmpfs|ramfs"})""",
                            "{{instance}} {{mountpoint}}",
                        )
                    ],
                    unit="percentunit",
                    width=8,
                ),
                Panel(
                    "stat",
                    "Size",
                    [_SIZE],
                    unit="bytes",
                    width=8,
                    height=6,
                    units={"days with partitions ahead": "none"},
                    description="The free disk divided by a day of readings is the number of days until it is full.",
                ),
                Panel("timeseries", "History by day", [_BY_DAY], unit="bytes", width=16, height=6, look="bars"),
                Panel(
                    "stat",
                    "Certificates expire in",
                    [
                        promql(
                            "(min by (file) (fleet_certificate_expiry_timestamp_seconds) - time()) / 86400",
                            "{{file}}",
                            is_now=True,
                        )
                    ],
                    unit="d",
                    width=24,
                    height=4,
                    description="That of the API, and those of FLEET_ALARM_CERTIFICATE_FILES of the keeper.",
                ),
            ],
        ),
    ],
)
