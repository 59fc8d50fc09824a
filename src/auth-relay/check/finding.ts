import { isAccessDenied, messageOf } from '../../base/errors.ts'

/** A result of `auth-relay check` about one thing. */
export type Finding = {
  /**
   * `unsafe`: must not run with this. `advice`: runs, and could be better. `fine`: checked, without
   * an objection.
   */
  readonly verdict: 'unsafe' | 'advice' | 'fine'
  /** The setting or the thing on the host. */
  readonly about: string
  readonly text: string
  /** The remedy; absent if nothing need be done. */
  readonly remedy?: string
}

export const unsafe = (about: string, text: string, remedy: string): Finding => ({
  verdict: 'unsafe',
  about,
  text,
  remedy,
})
/**
 * A fault of a program as a finding. The text after the last colon of its message is the remedy.
 */
export function unsafeBecause(about: string, { message }: Error): Finding {
  const [, text = message, remedy = 'see the message'] = /^(.*): (.+)$/s.exec(message) ?? []
  return unsafe(about, text, remedy)
}

/**
 * The finding of a check that this account may not complete, from the error of the system call.
 * Throws every other error.
 */
export function closedPath(error: unknown): readonly Finding[] {
  if (!isAccessDenied(error)) throw error
  return [unsafe('auth-relay check', `not checked in full: ${messageOf(error)}`, 'run auth-relay check as root')]
}

export const advice = (about: string, text: string, remedy: string): Finding => ({
  verdict: 'advice',
  about,
  text,
  remedy,
})
export const fine = (about: string, text: string): Finding => ({ verdict: 'fine', about, text })
