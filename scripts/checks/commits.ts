import { spawnSync } from 'node:child_process'

/** The last commit before the rule for subjects. It and older commits are not checked. */
const BEFORE = '640ac87'

/** `component: effect`, several components separated by commas. */
const SUBJECT = /^[a-z][a-z0-9./-]*(, [a-z][a-z0-9./-]*)*: \S.*[^.\s]$/
const MAX_LENGTH = 100

/** Words with which an effect of one or two words begins: "format", "sort imports". */
const VERBS = /^(?:add|drop|fix|format|prepare|remove|rename|sort|split|update)\b/
const MIN_WORDS = 3

/** Short effects in the history, from before the rule about their words. */
const EARLIER: ReadonlySet<string> = new Set(['watch: plain comments'])

/** The fault in the subject line of a commit; undefined if the line is good. */
export function subjectFault(subject: string): string | undefined {
  if (!SUBJECT.test(subject)) return 'write "component: effect", for example "popup: bound replies before login"'
  if (subject.length > MAX_LENGTH) return `has ${subject.length} characters, ${MAX_LENGTH} at most`
  const effect = subject.slice(subject.indexOf(': ') + 2)
  if (effect.split(' ').length < MIN_WORDS && !VERBS.test(effect) && !EARLIER.has(subject))
    return 'name the effect with at least three words, or with a verb'
  return undefined
}

if (import.meta.main) {
  const git = (...args: string[]): string | undefined => {
    const { status, stdout } = spawnSync('git', args, { encoding: 'utf8' })
    return status === 0 ? stdout : undefined
  }
  const log = git('log', '--no-merges', '--format=%h %s', `${BEFORE}..HEAD`)
  if (log === undefined) {
    console.log(`commits: no subject was read, because the checkout has no commit ${BEFORE}`)
    // An unpacked archive has no history at all. A clone of CI has the whole history.
    if (process.env['CI'] === 'true' && git('rev-parse', '--git-dir') !== undefined) {
      console.error('commits: FAULT: the clone is not complete: git fetch --unshallow')
      process.exitCode = 1
    }
  } else {
    const lines = log.split('\n').filter(line => line !== '')
    const faults = lines.flatMap(line => {
      const fault = subjectFault(line.slice(line.indexOf(' ') + 1))
      return fault === undefined ? [] : [`${line}: ${fault}`]
    })
    for (const fault of faults) console.error(fault)
    console.log(`commits: ${lines.length} subjects, ${faults.length} faults`)
    process.exitCode = faults.length === 0 ? 0 : 1
  }
}
