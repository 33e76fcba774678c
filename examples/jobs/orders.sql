-- Sums the orders of each customer, except cancelled orders.
CREATE TEMPORARY VIEW orders (customer STRING, amount DOUBLE, state STRING) USING csv OPTIONS (path '/data/orders', header 'true');
CREATE STREAMING TABLE totals USING console OPTIONS (outputMode 'complete') AS
SELECT customer, sum(amount) AS total, count(*) AS orders
FROM STREAM orders WHERE state <> 'cancelled' GROUP BY customer;
