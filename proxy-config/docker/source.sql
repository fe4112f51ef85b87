-- Run once by the image in an empty data directory, as the superuser in database app.
CREATE ROLE app LOGIN PASSWORD 'app';
ALTER DATABASE app OWNER TO app;

CREATE ROLE pgshadow LOGIN PASSWORD 'pgshadow';
GRANT CONNECT ON DATABASE app TO pgshadow;
GRANT pg_monitor, pg_read_all_data TO pgshadow;
