/**
 * The command that asks a server on loopback to accept a recipient, with swaks, and sends no mail.
 * `options`: further options of swaks.
 */
export const swaksCommand = (port: number, to: string, ...options: readonly string[]): readonly string[] => [
  'swaks',
  ...['--server', `127.0.0.1:${port}`, '--from', 'ann@example.org', '--to', to, '--quit-after', 'RCPT'],
  ...options,
]
