/** The result of one check, and the conversion of a program's fault into such a result. */

import { errorCodeOf, type Fault, isAccessDenied, messageOf } from '../../base/errors.ts'

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

/** The faults of a program as findings. A fault that names another setting is about that one. */
export const unsafeBecause = (about: string, { details }: { readonly details: readonly Fault[] }): Finding[] =>
  details.map(({ setting = about, fact, remedy = 'see the message' }) => unsafe(setting, fact, remedy))

/**
 * The finding of a check that cannot be completed, from the error of a system call about a path.
 * Throws every other error.
 */
export function closedPath(error: unknown): readonly Finding[] {
  if (errorCodeOf(error) === undefined || !(error instanceof Error && 'path' in error)) throw error
  const remedy = isAccessDenied(error) ? 'run auth-relay check as root' : 'correct the path in the settings'
  return [unsafe('auth-relay check', `not checked in full: ${messageOf(error)}`, remedy)]
}

export const advice = (about: string, text: string, remedy: string): Finding => ({
  verdict: 'advice',
  about,
  text,
  remedy,
})
export const fine = (about: string, text: string): Finding => ({ verdict: 'fine', about, text })
