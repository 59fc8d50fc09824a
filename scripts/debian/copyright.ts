import { existsSync, readdirSync, readFileSync } from 'node:fs'
import * as v from 'valibot'

const root = new URL('../../', import.meta.url).pathname

const Lock = v.object({
  packages: v.record(
    v.string(),
    v.object({
      version: v.optional(v.string()),
      license: v.optional(v.string()),
      dev: v.optional(v.boolean()),
      optional: v.optional(v.boolean()),
    }),
  ),
})

/**
 * Text of the file `copyright` of the Debian package: the licence of auth-relay, and each npm
 * package in it with the text of its licence. `native`: paths of the npm packages with native code.
 */
export function copyright(native: readonly string[]): string {
  const { packages } = v.parse(Lock, JSON.parse(readFileSync(`${root}package-lock.json`, 'utf8')))
  const shipped = Object.entries(packages).filter(
    ([path, { dev, optional }]) =>
      path !== '' && dev !== true && path !== 'node_modules/typescript' && (optional !== true || native.includes(path)),
  )
  const parts = shipped.map(([path, { version = '', license = 'unknown' }]) => {
    const name = path.replace('node_modules/', '')
    return `Files: ${native.includes(path) ? `/usr/lib/auth-relay/${path}/*` : `/usr/lib/auth-relay/dist/* (parts from ${name} ${version})`}
Copyright: the authors of ${name}
License: ${license}-${name.replaceAll(/[^A-Za-z0-9.]+/g, '-').replace(/^-/, '')}
${indent(licenceText(path, license))}`
  })
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: auth-relay
Comment: Parts are under the Apache License 2.0, which is compatible with version 3 of the GPL. The package as a whole is
 therefore distributed under GPL-3, which the terms of auth-relay (GPL-2 or later) permit.

Files: *
Copyright: the authors of auth-relay
License: GPL-2+
 This program is free software; you can redistribute it and/or modify it under the terms of the GNU General Public
 License as published by the Free Software Foundation; either version 2 of the License, or (at your option) any later
 version.
 .
 It is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the implied warranty of
 MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more details.
 .
 On Debian systems the full text is in /usr/share/common-licenses/GPL-2.

${parts.join('\n\n')}
`
}

/**
 * The licence file of an npm package. Every Debian system has the Apache License; the text of
 * another licence must be in the package.
 */
function licenceText(path: string, license: string): string {
  if (license === 'Apache-2.0') return 'On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.'
  const directory = `${root}${path}`
  const file = existsSync(directory) ? licenceFileIn(directory) : undefined
  if (file !== undefined) return readFileSync(`${directory}/${file}`, 'utf8').trim()
  return `The package has no licence file. Its package.json names ${license}.`
}

/** The first by name, because a directory has no fixed order. */
const licenceFileIn = (directory: string): string | undefined =>
  readdirSync(directory)
    .sort()
    .find(name => /^licen[cs]e/i.test(name))

/** A text field of a Debian control file: each line begins with a space, an empty one is a dot. */
const indent = (text: string): string =>
  text
    .replaceAll(/[^\P{C}\n]/gu, '')
    .split('\n')
    .map(line => (line.trim() === '' ? ' .' : ` ${line.trimEnd()}`))
    .join('\n')
