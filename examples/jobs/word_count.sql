-- Counts the words in the lines that clients send over TCP.
CREATE TEMPORARY VIEW lines USING socket OPTIONS (host '0.0.0.0', port '9999', mode 'listen');
CREATE STREAMING TABLE word_count USING console OPTIONS (outputMode 'update') AS
SELECT word, count(*) AS n
FROM (SELECT explode(split(value, ' ')) AS word FROM STREAM lines)
GROUP BY word;
