import { readFileSync } from 'node:fs'

/**
 * Variables of a program to be started. Values may be bytes: UCSPI's HOST and INFO are whatever the
 * network said (tcp-environ(5)).
 */
export type Environment = Readonly<Record<string, string | Uint8Array>>

/** Changes to an environment: undefined removes the variable. */
export type EnvironmentChanges = Readonly<Record<string, string | Uint8Array | undefined>>

/** `NAME=value` for posix_spawn and execve. */
export function formatEnvironment(environment: Environment): (string | Uint8Array)[] {
  return Object.entries(environment).map(([name, value]) =>
    typeof value === 'string' ? `${name}=${value}` : Buffer.concat([Buffer.from(`${name}=`), value]),
  )
}

/** The environment with some variables set and others removed. */
export function changeEnvironment(environment: Environment, changes: EnvironmentChanges): Environment {
  const changed: Record<string, string | Uint8Array> = { ...environment }
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) delete changed[name]
    else changed[name] = value
  }
  return changed
}

/**
 * This process's environment byte for byte as it was handed over; process.env would replace what is not UTF-8.
 * The first of two variables of one name counts, as for getenv(3). Read once: a process that may
 * not be inspected may not read it again.
 */
export function ownEnvironment(): Environment {
  own ??= parseEnvironment(readFileSync('/proc/self/environ'))
  return own
}
let own: Environment | undefined

/** What /proc/PID/environ says. */
export function parseEnvironment(block: Uint8Array): Environment {
  const environment: Record<string, string | Uint8Array> = {}
  for (let at = 0; at < block.length; ) {
    const nul = block.indexOf(0, at)
    const end = nul < 0 ? block.length : nul
    const equals = block.indexOf(0x3d, at)
    if (equals > at && equals < end) {
      const name = Buffer.from(block.subarray(at, equals)).toString('latin1')
      if (!Object.hasOwn(environment, name)) environment[name] = textOrBytes(block.subarray(equals + 1, end))
    }
    at = end + 1
  }
  return environment
}

function textOrBytes(bytes: Uint8Array): string | Uint8Array {
  const text = Buffer.from(bytes).toString()
  return Buffer.from(text).equals(bytes) ? text : bytes
}
