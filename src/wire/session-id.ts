declare const checked: unique symbol
/** Names one POP3 session in every log line, from sslwrap through popup and pop3d to authd: `7f3a.12`. */
export type SessionId = string & { readonly [checked]: 'SessionId' }

/** A session id as this project's programs make them: hexadecimal process id, dot, decimal counter. */
export const isSessionId = (text: string): text is SessionId => /^[0-9a-f]{1,8}\.[0-9]{1,12}$/.test(text)

/** The id of a process's n-th session; n counts from 1. */
export function sessionId(pid: number, counter: number): SessionId {
  const id = `${pid.toString(16)}.${counter}`
  if (!isSessionId(id)) throw new RangeError(`no session id: pid ${pid}, counter ${counter}`)
  return id
}

/** The msg-id of a greeting, which APOP digests: `<ID.SECONDS@HOST>`, different for every connection (RFC 1939 §7). */
export const formatTimestamp = (id: SessionId, unixSeconds: number, host: string): string =>
  `<${id}.${unixSeconds}@${host}>`

/** The session id in the greeting of our own popup, which may do without the brackets; undefined if another server speaks. */
export function sessionIdOfGreeting(greeting: string): SessionId | undefined {
  const text = /^\+OK (?:.*<([^<>]+)>|([^<>\s]+))\s*$/.exec(greeting)
  const id = /^([0-9a-f]{1,8}\.[0-9]{1,12})\.\d+@[^@]+$/.exec(text?.[1] ?? text?.[2] ?? '')?.[1]
  return id !== undefined && isSessionId(id) ? id : undefined
}
