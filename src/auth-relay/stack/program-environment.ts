type Environment = Readonly<Record<string, string | undefined>>

/** What belongs to the supervisor of `up`, not to the programs that `up` supervises. */
const OURS = [
  'NOTIFY_SOCKET',
  'WATCHDOG_USEC',
  'WATCHDOG_PID',
  'AUTHRELAY_SUPERVISED',
  'AUTHRELAY_PINGED',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
  'LISTEN_PID',
]

/** Secrets by the one program that may see them. */
const SECRETS: Readonly<Record<string, string>> = { DBPASS: 'authd', WRAP_DBPASS: 'wrap', STATUS_DBPASS: 'status-page' }

/** The environment of a program of the stack: ours, without what is not for it. */
export function programEnvironment(program: string, environment: Environment): Environment {
  const hidden = new Set([...OURS, ...Object.keys(SECRETS).filter(name => SECRETS[name] !== program)])
  return Object.fromEntries(
    Object.entries(environment).filter(([name, value]) => value !== undefined && !hidden.has(name)),
  )
}
