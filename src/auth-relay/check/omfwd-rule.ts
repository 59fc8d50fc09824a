/** The rule for rsyslog that deploy/rsyslog/to-authd-tcp.conf holds, in one line: the queue keeps lines while authd is stopped. */
export const omfwdRule = (port: number): string =>
  `mail.info action(type="omfwd" target="127.0.0.1" port="${port}" protocol="tcp" tcp_framing="octet-counted" ` +
  'queue.type="LinkedList" queue.size="100000" queue.timeoutEnqueue="0" action.resumeRetryCount="-1" action.resumeInterval="2")'
