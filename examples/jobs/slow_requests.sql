-- Reads requests as JSON lines and prints those that took longer than a second.
CREATE TEMPORARY VIEW requests USING socket OPTIONS (host 'log.example', port '514');
CREATE STREAMING TABLE slow_requests USING console AS
SELECT r.path AS path, r.ms AS ms
FROM (SELECT from_json(value, 'path STRING, ms BIGINT') AS r FROM STREAM requests)
WHERE r.ms > 1000;
