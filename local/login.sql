-- Creates one login, or updates its password and its groups: `make up` and the containers run it at every start. The
-- password is passed by the environment, because every user of the machine can see arguments.
--   FLEET_LOGIN_PASSWORD=... psql -v role=bridge -v groups=fleet_writer -f login.sql
\set ON_ERROR_STOP 1
\getenv password FLEET_LOGIN_PASSWORD

-- `python -m bridge migrate` grants privileges to the groups, so they must exist.
SELECT format('CREATE ROLE %I NOLOGIN', name)
FROM unnest(string_to_array(:'groups', ',')) name WHERE to_regrole(name) IS NULL \gexec

SELECT format('CREATE ROLE %I', :'role') WHERE to_regrole(:'role') IS NULL \gexec
ALTER ROLE :"role" LOGIN PASSWORD :'password';

SELECT format('GRANT %I TO %I', name, :'role') FROM unnest(string_to_array(:'groups', ',')) name \gexec
