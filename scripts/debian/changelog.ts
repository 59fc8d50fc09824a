/**
 * The changelog of the Debian package: one entry for this version, with the items of CHANGELOG.md.
 */
export function debianChangelog(version: string, changes: readonly string[], date: Date): string {
  const lines = changes.map(change => wrap(change).join('\n    ')).map(text => `  * ${text}`)
  return `auth-relay (${version}) unstable; urgency=medium

${lines.length > 0 ? lines.join('\n') : '  * New version.'}

 -- The auth-relay maintainers <auth-relay@example.org>  ${rfc2822(date)}
`
}

const WIDTH = 74

function wrap(text: string): readonly string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const line = lines.at(-1)
    if (line === undefined || line.length + word.length + 1 > WIDTH) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines
}

/** The items below a heading of CHANGELOG.md, each in one line; empty if the heading is missing. */
export function changesOf(changelog: string, heading: string): readonly string[] {
  const [, section = ''] = changelog.split(new RegExp(`^## ${heading.replaceAll('.', '\\.')}\\b.*$`, 'm'))
  const [own = ''] = section.split(/^## /m)
  return own
    .split(/^- /m)
    .slice(1)
    .map(item => item.replaceAll(/\s*\n\s*/g, ' ').trim())
}

/** Date in the format of Debian Policy 4.4, in UTC. */
const rfc2822 = (date: Date): string => date.toUTCString().replace('GMT', '+0000')
