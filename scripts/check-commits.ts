import { spawnSync } from 'node:child_process'

/** The last commit before the rule for subjects. It and older commits are not checked. */
const BEFORE = '640ac87'

/** `component: effect`, several components separated by commas. */
const SUBJECT = /^[a-z][a-z0-9./-]*(, [a-z][a-z0-9./-]*)*: \S.*[^.\s]$/
const MAX_LENGTH = 100

/** The fault in the subject line of a commit; undefined if the line is good. */
export function subjectFault(subject: string): string | undefined {
  if (!SUBJECT.test(subject)) return 'write "component: effect", for example "popup: bound replies before login"'
  if (subject.length > MAX_LENGTH) return `has ${subject.length} characters, ${MAX_LENGTH} at most`
  return undefined
}

if (import.meta.main) {
  const git = (...args: string[]): string | undefined => {
    const { status, stdout } = spawnSync('git', args, { encoding: 'utf8' })
    return status === 0 ? stdout : undefined
  }
  const log = git('log', '--no-merges', '--format=%h %s', `${BEFORE}..HEAD`)
  if (log === undefined) console.log('commits: no subject was read, because the history of the checkout is missing')
  else {
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
