/** Words that ask for the exec door. */
export type ExecLine = {
  readonly words: readonly string[]
  readonly asQmailSmtpd: boolean
  readonly config?: string
}

/**
 * The exec door's command lines: `wrap SMTPD…`, `wrap --config FILE SMTPD…`, or anything at all
 * under the names of the original's place. Undefined for all others: they
 * are for `parseCommandLine`. `script` is the name we were called by.
 */
export function parseExecLine(args: readonly string[], script: string): ExecLine | undefined {
  const [first, second, ...rest] = args
  // The launcher says so for the names under which the original was installed.
  if (first === '--as-qmail-smtpd') return { words: args.slice(1), asQmailSmtpd: true }
  if (/(^|\/)(qmail-smtpd|auth-wrap)$/.test(script)) return { words: args, asQmailSmtpd: true }
  if (first !== undefined && !first.startsWith('-')) return { words: args, asQmailSmtpd: false }
  if (first === '--config' && second !== undefined && rest[0] !== undefined && !rest[0].startsWith('-'))
    return { words: rest, asQmailSmtpd: false, config: second }
  return undefined
}
