/* exit3.c - a program that only shows that it ran. */
int main(void)
{
	return 3;
}
