-- Those that wait are counted before a stranger is entered, and are few.
CREATE INDEX device_pending ON device (status) WHERE status = 'pending';
