-- Run once by the image in an empty data directory, as the superuser in database app.
CREATE ROLE app LOGIN PASSWORD 'app';
ALTER DATABASE app OWNER TO app;

CREATE ROLE pgshadow LOGIN PASSWORD 'pgshadow';
GRANT CONNECT, CREATE ON DATABASE app TO pgshadow;
GRANT app TO pgshadow;
GRANT SET ON PARAMETER session_replication_role TO pgshadow;
